"""Figures of the whole, measured on the machine at hand: `make bench`. README.md beside this file explains each row."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if str(ROOT / "plugins") not in sys.path:  # Airflow adds its plugins folder by itself; these programs run without it
    sys.path.insert(0, str(ROOT / "plugins"))
