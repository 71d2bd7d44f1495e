"""Fixtures of the report's tests: a headless browser."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("reconlab_browser", Path(__file__).parents[1] / "browser.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
browser = _module.browser
