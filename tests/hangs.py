"""When a process that a test starts is taken to hang, however busy the machine is."""

SECONDS = 3600.0
