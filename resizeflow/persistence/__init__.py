"""The state database: models, repositories, event log, migrations, flow store."""
