"""Sample files and what is cut from them."""
