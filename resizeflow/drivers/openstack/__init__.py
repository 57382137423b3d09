"""What the drivers of OpenStack's services have in common: logging in, HTTP with deadlines and the fence, errors."""
