"""The study of arXiv:2405.00252 (Q-Newton): what scheduling saves, and under which assumptions.

data.py       real data, offline and online
models.py     a perceptron, a BERT-like classifier, a GPT-like language model
settings.py   what is run: offline, online, smoke
training.py   one run: decisions, losses, seconds; exact spectra on the way
pricing.py    a run at other gate times, with and without readout
by_rows.py    a system by the Jacobian's circuit, beside those of the matrix
claims.py     the paper's three claims, each with a number
figures.py    PNG figures
webpage.py    one HTML page
digest.py     what the documentation has of it
"""
