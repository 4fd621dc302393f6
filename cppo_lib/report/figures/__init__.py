"""The figures; `registry` names them all."""
