"""Child processes of the aggregator, and the MQTT broker that is one."""
