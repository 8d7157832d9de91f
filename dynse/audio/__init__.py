"""Sound as arrays: STFT and features, the rule for active speech, SI-SDR, files."""
