"""What is seen in a browser: the report of a migration, and the dashboard. It only reads."""
