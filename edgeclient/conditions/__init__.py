"""Board, network and owner → may it train or send now, and why not: pure rules over what is observed.

Knows nothing of gradients, frames or MQTT.
"""
