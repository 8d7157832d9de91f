"""Speech enhancement whose cost follows the signal and the device.

The rooms, in the order in which data flows through them (a room imports only those before it):
`audio`, `data`, `layers`, `gating`, `models`, `evaluation`, `training`.
"""

__version__ = "0.1.0"
