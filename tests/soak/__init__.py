"""`make soak`: the life of a service for some minutes, and what it leaves: promises, memory, connections, tables."""
