"""The real Cinder, by python-cinderclient and keystoneauth."""
