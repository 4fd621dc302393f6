"""Where everything lies, and files that are whole or not there."""
