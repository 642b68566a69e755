"""Ready configurations for boards, services and MQTT brokers, as package data."""
