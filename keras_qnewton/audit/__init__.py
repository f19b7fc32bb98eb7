"""`audit`, and what it returns."""

from keras_qnewton.audit.by_layer import audit
from keras_qnewton.audit.table import Audit, AuditRow

__all__ = ["Audit", "AuditRow", "audit"]
