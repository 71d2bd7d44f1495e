"""Pictures and tables that tell what the laboratory found; nothing below this room knows of it."""
