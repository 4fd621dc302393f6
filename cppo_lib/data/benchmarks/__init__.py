"""One file for each benchmark; `data.registry` names them all."""
