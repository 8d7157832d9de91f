"""Speech enhancement whose cost follows the signal and the device.

The rooms, in the order in which data flows through them (a room imports only those before it):
`audio`, `data`, `layers`, `gating`, `exits`, `quantization`, `models`, `search`, `evaluation`,
`training`, `probes`.
"""

__version__ = "0.1.0"
