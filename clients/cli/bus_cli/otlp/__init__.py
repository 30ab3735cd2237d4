"""OpenTelemetry: what the bus knows as spans, sent by OTLP over HTTP with protobuf. In the extra `agent-bus[otel]`."""
