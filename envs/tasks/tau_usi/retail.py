"""The shop's tools: orders, returns, exchanges, addresses (record formats of tau-bench's retail domain). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from envs.tasks.tau_usi.database import Database, Record, ToolError
from envs.tasks.tau_usi.tools import COMMON, USER_DETAILS, Tool, toolbox

REASONS = ("no longer needed", "ordered by mistake")
ADDRESS = ("address1", "address2", "city", "state", "country", "zip")
PENDING, DELIVERED = "pending", "delivered"
Told = tuple[Any, Database]


def by_email(db: Database, email: str) -> Told:
    for key, user in db.table("users").items():
        if user["email"].lower() == email.lower():
            return key, db
    raise ToolError("user not found")


def by_name(db: Database, first_name: str, last_name: str, zip: str) -> Told:
    for key, user in db.table("users").items():
        name = user["name"]
        same = (name["first_name"].lower(), name["last_name"].lower()) == (first_name.lower(), last_name.lower())
        if same and user["address"]["zip"] == zip:
            return key, db
    raise ToolError("user not found")


def product_types(db: Database) -> Told:
    return {product["name"]: key for key, product in sorted(db.table("products").items())}, db


def cancel(db: Database, order_id: str, reason: str) -> Told:
    """The money goes back; gift cards get it at once."""
    order = _order(db, order_id, PENDING)
    if reason not in REASONS:
        raise ToolError(f"the reason must be one of: {', '.join(REASONS)}")
    refunds = [{**p, "transaction_type": "refund"} for p in order["payment_history"]]
    for refund in refunds:
        db = _credit(db, order["user_id"], refund["payment_method_id"], refund["amount"])
    changed = {
        **order,
        "status": "cancelled",
        "cancel_reason": reason,
        "payment_history": [*order["payment_history"], *refunds],
    }
    return changed, db.put("orders", order_id, changed)


def order_address(db: Database, order_id: str, **address: str) -> Told:
    changed = {**_order(db, order_id, PENDING), "address": address}
    return changed, db.put("orders", order_id, changed)


def user_address(db: Database, user_id: str, **address: str) -> Told:
    changed = {**db.get("users", user_id), "address": address}
    return changed, db.put("users", user_id, changed)


def order_payment(db: Database, order_id: str, payment_method_id: str) -> Told:
    """The whole amount moves to another method of the same customer."""
    order = _order(db, order_id, PENDING)
    payments = order["payment_history"]
    if len(payments) != 1 or payments[0]["transaction_type"] != "payment":
        raise ToolError("the order must have exactly one payment")
    old, amount = payments[0]["payment_method_id"], payments[0]["amount"]
    if old == payment_method_id:
        raise ToolError("the new payment method must be another one")
    db = _charge(db, order["user_id"], payment_method_id, amount)
    db = _credit(db, order["user_id"], old, amount)
    moved = [_payment("payment", amount, payment_method_id), _payment("refund", amount, old)]
    changed = {**order, "payment_history": [*payments, *moved]}
    return changed, db.put("orders", order_id, changed)


def order_items(
    db: Database, order_id: str, item_ids: Sequence[str], new_item_ids: Sequence[str], payment_method_id: str
) -> Told:
    """Other variants of the same products; once per order."""
    order = _order(db, order_id, PENDING)
    items, difference = _swapped(db, order, item_ids, new_item_ids)
    db = _settle(db, order["user_id"], payment_method_id, difference)
    kind = "payment" if difference > 0 else "refund"
    changed = {
        **order,
        "items": items,
        "status": "pending (item modified)",
        "payment_history": [*order["payment_history"], _payment(kind, abs(difference), payment_method_id)],
    }
    return changed, db.put("orders", order_id, changed)


def give_back(db: Database, order_id: str, item_ids: Sequence[str], payment_method_id: str) -> Told:
    """The refund goes to the method of the order or to a gift card."""
    order = _order(db, order_id, DELIVERED)
    _method(db, order["user_id"], payment_method_id)
    paid_with = order["payment_history"][0]["payment_method_id"]
    if payment_method_id != paid_with and not payment_method_id.startswith("gift_card"):
        raise ToolError("a refund goes to the order's payment method or to a gift card")
    _held(order, item_ids)
    changed = {
        **order,
        "status": "return requested",
        "return_items": sorted(item_ids),
        "return_payment_method_id": payment_method_id,
    }
    return changed, db.put("orders", order_id, changed)


def exchange(
    db: Database, order_id: str, item_ids: Sequence[str], new_item_ids: Sequence[str], payment_method_id: str
) -> Told:
    order = _order(db, order_id, DELIVERED)
    _, difference = _swapped(db, order, item_ids, new_item_ids)
    _covers(_method(db, order["user_id"], payment_method_id), difference)
    changed = {
        **order,
        "status": "exchange requested",
        "exchange_items": sorted(item_ids),
        "exchange_new_items": sorted(new_item_ids),
        "exchange_payment_method_id": payment_method_id,
        "exchange_price_difference": difference,
    }
    return changed, db.put("orders", order_id, changed)


def _order(db: Database, order_id: str, status: str) -> Record:
    order = db.get("orders", order_id)
    if order["status"] != status:
        raise ToolError(f"the order is not {status}")
    return order


def _held(order: Record, item_ids: Sequence[str]) -> None:
    missing = Counter(item_ids) - Counter(item["item_id"] for item in order["items"])
    if missing or not item_ids:
        raise ToolError("these items are not in the order")


def _swapped(
    db: Database, order: Record, item_ids: Sequence[str], new_item_ids: Sequence[str]
) -> tuple[list[Mapping[str, Any]], float]:
    """The items afterwards, and what they cost more."""
    _held(order, item_ids)
    if len(item_ids) != len(new_item_ids):
        raise ToolError("as many new items as old ones")
    items, difference = list(order["items"]), 0.0
    for old_id, new_id in zip(item_ids, new_item_ids, strict=True):
        place = next(i for i, item in enumerate(items) if item["item_id"] == old_id)
        old = items[place]
        variant = db.get("products", old["product_id"])["variants"].get(new_id)
        if variant is None or not variant["available"]:
            raise ToolError(f"new item {new_id} is not an available variant of the same product")
        difference += variant["price"] - old["price"]
        items[place] = {**old, "item_id": new_id, "price": variant["price"], "options": variant["options"]}
    return items, round(difference, 2)


def _payment(kind: str, amount: float, method: str) -> dict[str, Any]:
    return {"transaction_type": kind, "amount": amount, "payment_method_id": method}


def _method(db: Database, user_id: str, method: str) -> Mapping[str, Any]:
    found = db.get("users", user_id)["payment_methods"].get(method)
    if found is None:
        raise ToolError("payment method not found")
    result: Mapping[str, Any] = found
    return result


def _covers(method: Mapping[str, Any], amount: float) -> None:
    if method["source"] == "gift_card" and method["balance"] < amount:
        raise ToolError("the gift card does not cover the amount")


def _settle(db: Database, user_id: str, method: str, amount: float) -> Database:
    return _charge(db, user_id, method, amount) if amount > 0 else _credit(db, user_id, method, -amount)


def _charge(db: Database, user_id: str, method: str, amount: float) -> Database:
    _covers(_method(db, user_id, method), amount)
    return _credit(db, user_id, method, -amount)


def _credit(db: Database, user_id: str, method: str, amount: float) -> Database:
    """A gift card's balance follows; other methods keep no balance here."""
    found = _method(db, user_id, method)
    if found["source"] != "gift_card":
        return db
    user = db.get("users", user_id)
    card = {**found, "balance": round(found["balance"] + amount, 2)}
    return db.put("users", user_id, {**user, "payment_methods": {**user["payment_methods"], method: card}})


_ITEMS = {"item_ids": "list of item ids", "new_item_ids": "list, in the same order"}
_PLACE = dict.fromkeys(ADDRESS, "text")
TOOLS = toolbox(
    (
        *COMMON,
        Tool("find_user_id_by_email", "Finds a customer.", {"email": "text"}, by_email),
        Tool(
            "find_user_id_by_name_zip",
            "Finds a customer.",
            {"first_name": "text", "last_name": "text", "zip": "text"},
            by_name,
        ),
        USER_DETAILS,
        Tool(
            "get_order_details",
            "Shows an order.",
            {"order_id": "id, with #"},
            lambda db, order_id: (db.get("orders", order_id), db),
        ),
        Tool(
            "get_product_details",
            "Shows a product and its variants.",
            {"product_id": "id"},
            lambda db, product_id: (db.get("products", product_id), db),
        ),
        Tool("list_all_product_types", "Lists product names and ids.", {}, product_types),
        Tool("cancel_pending_order", "Cancels.", {"order_id": "id", "reason": " or ".join(REASONS)}, cancel, True),
        Tool("modify_pending_order_address", "Sends elsewhere.", {"order_id": "id", **_PLACE}, order_address, True),
        Tool(
            "modify_pending_order_payment",
            "Charges another method.",
            {"order_id": "id", "payment_method_id": "id"},
            order_payment,
            True,
        ),
        Tool(
            "modify_pending_order_items",
            "Changes variants; once per order.",
            {"order_id": "id", **_ITEMS, "payment_method_id": "id"},
            order_items,
            True,
        ),
        Tool(
            "modify_user_address", "Changes the customer's address.", {"user_id": "id", **_PLACE}, user_address, True
        ),
        Tool(
            "return_delivered_order_items",
            "Requests a return.",
            {"order_id": "id", "item_ids": "list", "payment_method_id": "id for the refund"},
            give_back,
            True,
        ),
        Tool(
            "exchange_delivered_order_items",
            "Requests an exchange for other variants.",
            {"order_id": "id", **_ITEMS, "payment_method_id": "id"},
            exchange,
            True,
        ),
    )
)
POLICY = (
    "You serve customers of a shop. First find out who the customer is, by email or by name and zip code, and do "
    "nothing for anybody else's orders. You can cancel or change pending orders, return or exchange delivered ones, "
    "and change addresses. Each order's items can be changed, returned or exchanged once. Before any change say "
    "exactly what you will do and wait for a clear yes. Refuse what the tools and these rules do not allow; hand "
    "over to a person only then. Make nothing up."
)
