"""Makes Neutron's tables in an empty SQLite database: `schema.py FILE`.

Neutron's migrations alter constraints, which SQLite cannot; its own unit tests make the tables from the models, too.
"""

import sys

import sqlalchemy
from neutron.db.migration.models import head  # type: ignore[import-not-found]

if __name__ == "__main__":
    head.get_metadata().create_all(sqlalchemy.create_engine(f"sqlite:///{sys.argv[1]}"))
