"""What people see and call: the HTTP API."""
