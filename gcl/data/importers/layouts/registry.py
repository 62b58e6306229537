"""The layouts of exports, one record each: data.layout, `gcl init`, help and documentation read them."""

from __future__ import annotations

from collections.abc import Sequence

from gcl.data.importers.layouts.google import GOOGLE
from gcl.data.importers.layouts.layout import Layout
from gcl.data.importers.layouts.magento import MAGENTO
from gcl.data.importers.layouts.magento1 import MAGENTO1
from gcl.data.importers.layouts.shopify import SHOPIFY
from gcl.data.importers.layouts.woocommerce import WOOCOMMERCE

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (SHOPIFY, WOOCOMMERCE, MAGENTO, MAGENTO1, GOOGLE)}


def check_layout(name: str) -> None:
    """Raises ValueError for a name that no layout has."""
    if name not in LAYOUTS:
        known = "; ".join(f"{layout.name}: {layout.description}" for layout in LAYOUTS.values())
        raise ValueError(f"data.layout is {name!r}: there is {known}.")


def layout_of(columns: Sequence[str]) -> Layout | None:
    """The layout that these columns are an export of."""
    return next((layout for layout in LAYOUTS.values() if layout.knows(columns)), None)
