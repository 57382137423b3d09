"""The tasks of the flows, one module per resource. A task knows its `World`, never the flow."""
