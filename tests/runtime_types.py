"""The run-time type checker of `pytest --typed`."""

from beartype import BeartypeConf, beartype

# an int where a float is asked for is fine, as it is to every static checker
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
