"""The side beside the MQTT broker: counts every upload exactly once, makes new global models, shows the fleet.

One folder is one stage of the data's way; `service.py` is where they meet.
"""
