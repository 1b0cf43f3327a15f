"""The airline's tools: bookings, changes, bags, vouchers (record formats of tau-bench's airline domain). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.files import hash_json
from envs.tasks.tau_usi.database import Database, Record, ToolError
from envs.tasks.tau_usi.tools import COMMON, USER_DETAILS, Tool, toolbox

BAG_PRICE = 50
INSURANCE_PRICE = 30
NOW = "2024-05-15T15:00:00"
Told = tuple[Any, Database]


def airports(db: Database) -> Told:
    found = {f[end] for f in db.table("flights").values() for end in ("origin", "destination")}
    return sorted(found), db


def direct(db: Database, origin: str, destination: str, date: str) -> Told:
    return [f for f in _on(db, date) if f["origin"] == origin and f["destination"] == destination], db


def one_stop(db: Database, origin: str, destination: str, date: str) -> Told:
    """Pairs of flights on one day; the second leaves after the first has landed."""
    flights = list(_on(db, date))
    return [
        [first, second]
        for first in flights
        if first["origin"] == origin
        for second in flights
        if second["destination"] == destination
        and second["origin"] == first["destination"] != destination
        and second["scheduled_departure_time_est"] >= first["scheduled_arrival_time_est"]
    ], db


def book(
    db: Database,
    user_id: str,
    origin: str,
    destination: str,
    flight_type: str,
    cabin: str,
    flights: Sequence[Mapping[str, str]],
    passengers: Sequence[Mapping[str, str]],
    payment_methods: Sequence[Mapping[str, Any]],
    total_baggages: int,
    nonfree_baggages: int,
    insurance: str,
) -> Told:
    """A new reservation, paid exactly. Its id follows from what is booked."""
    user = db.get("users", user_id)
    legs = [_leg(db, leg["flight_number"], leg["date"], cabin, len(passengers)) for leg in flights]
    price = sum(leg["price"] for leg in legs) * len(passengers) + nonfree_baggages * BAG_PRICE
    price += INSURANCE_PRICE * len(passengers) if insurance == "yes" else 0
    if sum(payment["amount"] for payment in payment_methods) != price:
        raise ToolError(f"the payments do not add up to the price of {price}")
    for payment in payment_methods:
        db = _pay(db, user_id, payment["payment_id"], payment["amount"])
    ident = hash_json([user_id, legs, len(user["reservations"])])[:6].upper()
    reservation = {
        "reservation_id": ident,
        "user_id": user_id,
        "origin": origin,
        "destination": destination,
        "flight_type": flight_type,
        "cabin": cabin,
        "flights": legs,
        "passengers": list(passengers),
        "payment_history": list(payment_methods),
        "created_at": NOW,
        "total_baggages": total_baggages,
        "nonfree_baggages": nonfree_baggages,
        "insurance": insurance,
    }
    user = db.get("users", user_id)
    db = db.put("users", user_id, {**user, "reservations": [*user["reservations"], ident]})
    return reservation, db.put("reservations", ident, reservation)


def cancel(db: Database, reservation_id: str) -> Told:
    found = db.get("reservations", reservation_id)
    if found.get("status") == "cancelled":
        raise ToolError("the reservation is cancelled already")
    refunds = [{"payment_id": p["payment_id"], "amount": -p["amount"]} for p in found["payment_history"]]
    changed = {**found, "payment_history": [*found["payment_history"], *refunds], "status": "cancelled"}
    return changed, db.put("reservations", reservation_id, changed)


def change_flights(
    db: Database, reservation_id: str, cabin: str, flights: Sequence[Mapping[str, str]], payment_id: str
) -> Told:
    """Other flights or another cabin; kept flights keep their price, the difference is charged or given back."""
    found = db.get("reservations", reservation_id)
    kept = {(leg["flight_number"], leg["date"]): leg for leg in found["flights"] if found["cabin"] == cabin}
    people = len(found["passengers"])
    legs = [
        kept.get((leg["flight_number"], leg["date"])) or _leg(db, leg["flight_number"], leg["date"], cabin, people)
        for leg in flights
    ]
    difference = people * (sum(leg["price"] for leg in legs) - sum(leg["price"] for leg in found["flights"]))
    return _changed(db, found, {"flights": legs, "cabin": cabin}, payment_id, difference)


def change_passengers(db: Database, reservation_id: str, passengers: Sequence[Mapping[str, str]]) -> Told:
    found = db.get("reservations", reservation_id)
    if len(passengers) != len(found["passengers"]):
        raise ToolError("the number of passengers cannot change")
    changed = {**found, "passengers": list(passengers)}
    return changed, db.put("reservations", reservation_id, changed)


def change_baggage(
    db: Database, reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str
) -> Told:
    found = db.get("reservations", reservation_id)
    difference = BAG_PRICE * max(0, nonfree_baggages - found["nonfree_baggages"])
    bags = {"total_baggages": total_baggages, "nonfree_baggages": nonfree_baggages}
    return _changed(db, found, bags, payment_id, difference)


def certificate(db: Database, user_id: str, amount: int) -> Told:
    """A voucher for the customer; its id follows from the customer and how many there were."""
    user = db.get("users", user_id)
    number = sum(m["source"] == "certificate" for m in user["payment_methods"].values())
    ident = f"certificate_{int(hash_json([user_id, number])[:6], 16)}"
    methods = {**user["payment_methods"], ident: {"source": "certificate", "amount": amount, "id": ident}}
    return f"{ident} of {amount} was sent", db.put("users", user_id, {**user, "payment_methods": methods})


def _on(db: Database, date: str) -> Iterator[dict[str, Any]]:
    """Flights that can be booked on a day, with that day's seats and prices."""
    for flight in db.table("flights").values():
        day = flight["dates"].get(date)
        if day is not None and day["status"] == "available":
            plain = {name: value for name, value in flight.items() if name != "dates"}
            yield {**plain, "available_seats": day["available_seats"], "prices": day["prices"]}


def _leg(db: Database, number: str, date: str, cabin: str, people: int) -> dict[str, Any]:
    flight = db.get("flights", number)
    day = flight["dates"].get(date)
    if day is None or day["status"] != "available":
        raise ToolError(f"flight {number} cannot be booked on {date}")
    if cabin not in day["prices"] or day["available_seats"][cabin] < people:
        raise ToolError(f"flight {number} has not enough seats in {cabin}")
    ends = {"origin": flight["origin"], "destination": flight["destination"]}
    return {**ends, "flight_number": number, "date": date, "price": day["prices"][cabin]}


def _changed(db: Database, found: Record, changes: Mapping[str, Any], payment_id: str, difference: float) -> Told:
    if difference:
        db = _pay(db, found["user_id"], payment_id, difference, certificates=False)
    paid = [{"payment_id": payment_id, "amount": difference}] if difference else []
    changed = {**found, **changes, "payment_history": [*found["payment_history"], *paid]}
    return changed, db.put("reservations", found["reservation_id"], changed)


def _pay(db: Database, user_id: str, payment_id: str, amount: float, *, certificates: bool = True) -> Database:
    user = db.get("users", user_id)
    method = user["payment_methods"].get(payment_id)
    if method is None or (method["source"] == "certificate" and not certificates):
        raise ToolError("this payment method cannot be used here")
    if method["source"] == "credit_card":
        return db
    if method["amount"] < amount:
        raise ToolError("the payment method does not cover the amount")
    rest = {name: m for name, m in user["payment_methods"].items() if name != payment_id}
    if method["source"] == "gift_card":
        rest[payment_id] = {**method, "amount": method["amount"] - amount}
    return db.put("users", user_id, {**user, "payment_methods": rest})


_ROUTE = {"origin": "airport", "destination": "airport", "date": "YYYY-MM-DD"}
_LEGS = "list of {flight_number, date}"
_PEOPLE = "list of {first_name, last_name, dob}"
TOOLS = toolbox(
    (
        *COMMON,
        USER_DETAILS,
        Tool(
            "get_reservation_details",
            "Shows a reservation.",
            {"reservation_id": "id"},
            lambda db, reservation_id: (db.get("reservations", reservation_id), db),
        ),
        Tool("list_all_airports", "Lists airports.", {}, airports),
        Tool("search_direct_flight", "Finds flights.", _ROUTE, direct),
        Tool("search_onestop_flight", "Finds pairs of flights.", _ROUTE, one_stop),
        Tool(
            "book_reservation",
            "Books.",
            {
                "user_id": "id",
                "origin": "airport",
                "destination": "airport",
                "flight_type": "one_way or round_trip",
                "cabin": "basic_economy, economy or business",
                "flights": _LEGS,
                "passengers": _PEOPLE,
                "payment_methods": "list of {payment_id, amount}",
                "total_baggages": "number",
                "nonfree_baggages": "number",
                "insurance": "yes or no",
            },
            book,
            True,
        ),
        Tool("cancel_reservation", "Cancels and refunds.", {"reservation_id": "id"}, cancel, True),
        Tool(
            "update_reservation_flights",
            "Changes flights or cabin.",
            {"reservation_id": "id", "cabin": "cabin", "flights": _LEGS, "payment_id": "id"},
            change_flights,
            True,
        ),
        Tool(
            "update_reservation_passengers",
            "Corrects passengers.",
            {"reservation_id": "id", "passengers": _PEOPLE},
            change_passengers,
            True,
        ),
        Tool(
            "update_reservation_baggages",
            "Adds bags.",
            {"reservation_id": "id", "total_baggages": "number", "nonfree_baggages": "number", "payment_id": "id"},
            change_baggage,
            True,
        ),
        Tool("send_certificate", "Sends a voucher.", {"user_id": "id", "amount": "number"}, certificate, True),
    )
)
POLICY = (
    "You serve customers of an airline. Ask for the user id first. Bags beyond the free ones cost 50 each; basic "
    "economy flights cannot be changed; passengers can be corrected but not added. Before any booking or change say "
    "exactly what you will do and what it costs, and wait for a clear yes. Refuse what the tools and these rules do "
    "not allow; hand over to a person only then. Make nothing up."
)
