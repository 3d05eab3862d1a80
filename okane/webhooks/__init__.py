"""Events of payments, delivered to the endpoints of clients."""
