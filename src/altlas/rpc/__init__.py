"""gRPC: generated code, servers, channels, conversions between messages and the core's types."""
