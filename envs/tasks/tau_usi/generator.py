"""Small shops and airlines with one customer request each, made by rule: the task trains and runs with no download.

A request's database holds its own customer only. Which part a request belongs to follows from its content, so train
and test share none. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from common.files import hash_json
from common.seeds import derive_rng
from envs.tasks.tau_usi.retail import REASONS

FIRST = ("Mara", "Tomas", "Ida", "Sam", "Noor", "Ben", "Lise", "Odd", "Vera", "Jon")
LAST = ("Lind", "Rey", "Novak", "Osei", "Haddad", "Falk", "Berg", "Sato")
CITIES = (("Austin", "TX", "78701"), ("Denver", "CO", "80202"), ("Boston", "MA", "02108"), ("Miami", "FL", "33101"))
PRODUCTS = {
    "kettle": ("steel", "glass", "white"),
    "lamp": ("brass", "black", "oak"),
    "bag": ("grey", "green", "blue"),
}
AIRPORTS = ("SEA", "JFK", "DEN", "MIA")
DAYS = ("2024-05-20", "2024-05-21", "2024-05-22")
MANNERS = ("You are in a hurry.", "You are chatty.", "You are polite and precise.", "You are a little annoyed.")
HELDOUT_SHARE = 5
Case = Mapping[str, Any]


def cases(part: str, count: int, seed: int) -> Iterator[Case]:
    """`count` different requests of a part ("train" or "test")."""
    seen: set[str] = set()
    number = 0
    while len(seen) < count:
        rng = derive_rng(seed, "tau_usi", part, number)
        number += 1
        case = (_retail if rng.random() < 0.5 else _airline)(rng)
        identity = hash_json(case)
        heldout = int(identity[:8], 16) % HELDOUT_SHARE == 0
        if heldout == (part == "test") and identity not in seen:
            seen.add(identity)
            yield case


def _retail(rng: Random) -> Case:
    first, last = rng.choice(FIRST), rng.choice(LAST)
    city, state, zip_code = rng.choice(CITIES)
    user_id = f"{first}_{last}_{rng.randrange(1000, 9999)}".lower()
    products, items = _products(rng)
    order_id = f"#W{rng.randrange(10**6, 10**7)}"
    card = f"credit_card_{rng.randrange(10**6, 10**7)}"
    kind = rng.choice(("cancel", "return", "exchange"))
    address = {"address1": f"{rng.randrange(1, 99)} Mill Lane", "address2": "", "city": city, "country": "USA"}
    address |= {"state": state, "zip": zip_code}
    total = round(sum(item["price"] for item in items), 2)
    order = {
        "order_id": order_id,
        "user_id": user_id,
        "address": address,
        "items": items,
        "fulfillments": [],
        "status": "pending" if kind == "cancel" else "delivered",
        "payment_history": [{"transaction_type": "payment", "amount": total, "payment_method_id": card}],
    }
    user = {
        "name": {"first_name": first, "last_name": last},
        "address": address,
        "email": f"{user_id}@example.com",
        "payment_methods": {card: {"source": "credit_card", "id": card, "brand": "visa", "last_four": card[-4:]}},
        "orders": [order_id],
    }
    wish, action = _retail_wish(rng, kind, order, products, card)
    who = f"You are {first} {last}, zip code {zip_code}. {rng.choice(MANNERS)} {wish}"
    tables = {"users": {user_id: user}, "orders": {order_id: order}, "products": products}
    return {
        "domain": "retail",
        "user_id": user_id,
        "instruction": who,
        "actions": [action],
        "outputs": [],
        "tables": tables,
    }


def _products(rng: Random) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    products, items = {}, []
    for name in rng.sample(sorted(PRODUCTS), 2):
        key = str(rng.randrange(10**9, 10**10))
        variants = {}
        for look in PRODUCTS[name]:
            item_id = str(rng.randrange(10**9, 10**10))
            price = rng.randrange(1500, 9000) / 100
            variants[item_id] = {"item_id": item_id, "options": {"look": look}, "available": True, "price": price}
        products[key] = {"name": name, "product_id": key, "variants": variants}
        own = next(iter(variants.values()))
        items.append({"name": name, "product_id": key, **{k: own[k] for k in ("item_id", "price", "options")}})
    return products, items


def _retail_wish(
    rng: Random, kind: str, order: Mapping[str, Any], products: Mapping[str, Any], card: str
) -> tuple[str, dict[str, Any]]:
    order_id, item = order["order_id"], rng.choice(order["items"])
    if kind == "cancel":
        reason = rng.choice(REASONS)
        wish = f"You want to cancel your order {order_id}; the reason is: {reason}."
        return wish, {"name": "cancel_pending_order", "arguments": {"order_id": order_id, "reason": reason}}
    if kind == "return":
        wish = f"You want to return the {item['name']} of order {order_id} and get the money back as you paid."
        arguments = {"order_id": order_id, "item_ids": [item["item_id"]], "payment_method_id": card}
        return wish, {"name": "return_delivered_order_items", "arguments": arguments}
    variants = products[item["product_id"]]["variants"]
    new_id = rng.choice([key for key in variants if key != item["item_id"]])
    look = variants[new_id]["options"]["look"]
    wish = f"You want to exchange the {item['name']} of order {order_id} for a {look} one, paid with the same card."
    arguments = {
        "order_id": order_id,
        "item_ids": [item["item_id"]],
        "new_item_ids": [new_id],
        "payment_method_id": card,
    }
    return wish, {"name": "exchange_delivered_order_items", "arguments": arguments}


def _airline(rng: Random) -> Case:
    first, last = rng.choice(FIRST), rng.choice(LAST)
    user_id = f"{first}_{last}_{rng.randrange(1000, 9999)}".lower()
    card = f"credit_card_{rng.randrange(10**6, 10**7)}"
    origin, destination = rng.sample(AIRPORTS, 2)
    flights: dict[str, dict[str, Any]] = {}
    for number in rng.sample(range(100, 1000), 3):
        prices = {"basic_economy": 60, "economy": rng.randrange(90, 200), "business": rng.randrange(300, 600)}
        seats = dict.fromkeys(prices, 9)
        day = {"status": "available", "available_seats": seats, "prices": prices}
        start = rng.randrange(6, 18)
        flights[f"OSM{number}"] = {
            "flight_number": f"OSM{number}",
            "origin": origin,
            "destination": destination,
            "scheduled_departure_time_est": f"{start:02d}:00:00",
            "scheduled_arrival_time_est": f"{start + 3:02d}:00:00",
            "dates": dict.fromkeys(DAYS, day),
        }
    booked, other, *_ = flights.values()
    price = booked["dates"][DAYS[0]]["prices"]["economy"]
    ident = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(6))
    leg = {"origin": origin, "destination": destination, "flight_number": booked["flight_number"]}
    person = {"first_name": first, "last_name": last, "dob": f"19{rng.randrange(50, 99)}-03-12"}
    reservation = {
        "reservation_id": ident,
        "user_id": user_id,
        "origin": origin,
        "destination": destination,
        "flight_type": "one_way",
        "cabin": "economy",
        "flights": [{**leg, "date": DAYS[0], "price": price}],
        "passengers": [person],
        "payment_history": [{"payment_id": card, "amount": price}],
        "created_at": "2024-05-01T10:00:00",
        "total_baggages": 1,
        "nonfree_baggages": 0,
        "insurance": "no",
    }
    user = {
        "name": {"first_name": first, "last_name": last},
        "email": f"{user_id}@example.com",
        "dob": person["dob"],
        "payment_methods": {card: {"source": "credit_card", "id": card, "brand": "visa", "last_four": card[-4:]}},
        "membership": "regular",
        "reservations": [ident],
    }
    wish, action = _airline_wish(rng, ident, other["flight_number"], card)
    who = f"You are {first} {last}; your user id is {user_id}. {rng.choice(MANNERS)} {wish}"
    tables = {"users": {user_id: user}, "reservations": {ident: reservation}, "flights": flights}
    return {
        "domain": "airline",
        "user_id": user_id,
        "instruction": who,
        "actions": [action],
        "outputs": [],
        "tables": tables,
    }


def _airline_wish(rng: Random, ident: str, flight: str, card: str) -> tuple[str, dict[str, Any]]:
    kind = rng.choice(("cancel", "bag", "change"))
    if kind == "cancel":
        wish = f"You want to cancel your reservation {ident}."
        return wish, {"name": "cancel_reservation", "arguments": {"reservation_id": ident}}
    if kind == "bag":
        wish = f"You want to add one bag to reservation {ident}, and you know that it costs 50. Pay with your card."
        bags = {"total_baggages": 2, "nonfree_baggages": 1}
        return wish, {
            "name": "update_reservation_baggages",
            "arguments": {"reservation_id": ident, **bags, "payment_id": card},
        }
    day = rng.choice(DAYS[1:])
    wish = f"You want to move reservation {ident} to flight {flight} on {day}, still in economy, paid with your card."
    arguments = {"cabin": "economy", "flights": [{"flight_number": flight, "date": day}], "payment_id": card}
    return wish, {"name": "update_reservation_flights", "arguments": {"reservation_id": ident, **arguments}}
