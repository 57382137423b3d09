"""The real Neutron, by openstacksdk and keystoneauth."""
