"""The tables; `registry` names them all."""
