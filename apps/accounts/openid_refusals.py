"""Why nobody was signed in although a provider sent them, and what the page says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """What a visitor reads: a sentence on what happened and one on what to do. `{provider}` is the provider's name."""

    title: str
    text: str
    status: int = 403


class Refused(Exception):
    """The portal opens no session. `detail` is for the audit trail; visitors read the page of the cause."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause = cause
        self.detail = detail

    @property
    def page(self) -> Page:
        """The page of the cause."""
        return PAGES[self.cause]


_ASK = "Ask your administrators, and give them the reference below."

PAGES: Mapping[str, Page] = {
    "expired": Page(
        "Please sign in again",
        "This attempt to sign in is over: it took longer than ten minutes, was used before, or began in another browser"
        " or under another address of this portal. Nothing happened; begin again.",
        400,
    ),
    "issuer": Page(
        "The answer came from somewhere else",
        "What arrived was not the answer of {provider}, and the portal did not use it. Begin again from the sign-in"
        f" page. Should it happen twice, somebody may be trying to mislead you. {_ASK}",
        400,
    ),
    "denied": Page(
        "{provider} did not sign you in",
        "Either you stopped there, or your account there may not use this portal. Begin again, or ask who keeps your"
        " account at {provider} for access.",
    ),
    "answered": Page(
        "{provider} could not sign you in", f"It reported a fault of its own. Try again in a few minutes. {_ASK}", 502
    ),
    "token": Page(
        "The answer of {provider} could not be checked",
        f"What it says about you did not pass the portal's checks, so nobody was signed in. Begin again. {_ASK}",
        502,
    ),
    "unavailable": Page(
        "{provider} cannot be reached",
        "The portal got no usable answer from it. Nothing is wrong with your account; try again in a few minutes.",
        503,
    ),
    "misconfigured": Page(
        "Sign-in at {provider} is not set up rightly",
        f"The portal and {{provider}} do not agree on how to talk to each other. {_ASK}",
        502,
    ),
    "disabled": Page("Sign-in at {provider} is switched off", f"Use another way to sign in. {_ASK}"),
    "limited": Page(
        "Too many failed attempts",
        "From your network too many attempts to sign in failed within 15 minutes. Wait a quarter of an hour, then try"
        " again.",
        429,
    ),
    "second_factor": Page(
        "A second factor is needed",
        "{provider} did not report that you gave a second factor. Set one up there, then sign in again.",
    ),
    "switched_off": Page("This account is switched off", f"It may not be used for now. {_ASK}"),
    "unverified": Page(
        "{provider} does not vouch for your address",
        "You have no account here yet, and one is made only for an e-mail address that {provider} has verified. Have"
        " your address verified there, or ask your administrators for an account.",
    ),
    "domain": Page(
        "Your address is not one of those accepted from {provider}",
        f"You have no account here yet, and none is made for addresses of that domain. {_ASK}",
    ),
    "no_account": Page(
        "You have no account here yet", f"{{provider}} knows you, but it makes no accounts here. {_ASK}"
    ),
    "taken": Page(
        "Your account here is not connected with {provider}",
        "There is an account with your address, and the portal does not hand it over by address alone. Sign in as you"
        f" did so far. {_ASK}",
    ),
    "other_person": Page(
        "That was somebody else",
        "You were asked to prove who you are, and {provider} signed in another person. Go back and sign in there with"
        " your own account.",
    ),
    "not_fresh": Page(
        "{provider} did not ask you again",
        f"You were to sign in anew, and {{provider}} did not say that you did. Close its session and try again. {_ASK}",
    ),
}
