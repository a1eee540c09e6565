"""The doors between the portal and its identity providers: out to sign in, back with an answer, notices of log-out.

All lie below /sign-in/at/: no transaction is open around them, since answering takes calls to the provider.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.middleware.csrf import rotate_token
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.text import capfirst
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_exempt
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import View

from apps.accounts import actions, openid, openid_claims, openid_flow, openid_people, openid_sessions
from apps.accounts.addresses import client_address
from apps.accounts.models import IdentityProvider, SignInSession
from apps.accounts.openid_flow import Flow
from apps.accounts.openid_providers import MANAGE
from apps.accounts.openid_refusals import Refused
from apps.accounts.sessions import device_name
from apps.core import crypto
from apps.core.actor import Actor, current_request_id
from apps.core.errors import NotAllowed, NotVisible
from apps.core.permissions import INSTALLATION, may
from apps.core.views import Crumb, redirect_to_sign_in

_log = logging.getLogger(__name__)
#: Parameters of an answer, each at most once and so long.
_GIVEN = ("state", "code", "error", "iss")
_LONGEST = 4096


@method_decorator(never_cache, name="dispatch")
class _Door(View):
    """A page about one provider, for anybody."""

    provider: IdentityProvider

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        """Find the provider. Raises NotVisible."""
        super().setup(request, *args, **kwargs)
        found = IdentityProvider.objects.filter(slug=kwargs["slug"], archived_at__isnull=True).first()
        if found is None:
            raise NotVisible
        self.provider = found

    def refused(self, refused: Refused, flow: Flow | None = None) -> HttpResponse:
        """Have the refusal recorded and say on a page what happened and what to do."""
        openid_people.refuse(
            self.provider, refused, address=client_address(self.request), begun=flow is not None
        )  # fmt: skip
        page = refused.page
        # Visitors read names of providers that are open to them, and of no others.
        name = self.provider.name if self.provider.enabled else "the identity provider"
        again = openid.start_url(self.provider, flow.next if flow else "/")
        if flow is not None and flow.purpose != openid_flow.SIGN_IN:
            again = ""
        response = render(
            self.request,
            "accounts/openid_refused.html",
            {
                "title": capfirst(page.title.format(provider=name)),
                "text": page.text.format(provider=name),
                "again": again if refused.cause not in ("disabled", "limited", "switched_off") else "",
                "back": flow.next if flow is not None and flow.purpose != openid_flow.SIGN_IN else "",
                "provider": name,
                "reference": current_request_id(),
            },
            status=page.status,
        )
        # Django would log the address, and with it the code that the provider gave.
        response._has_been_logged = True  # type: ignore[attr-defined]  # Django's own way
        _log.warning("sign-in at provider %s refused: %s", self.provider.slug, refused)
        if flow is not None:
            openid_flow.end(response, flow)
        return response

    def go(self, flow: Flow) -> HttpResponseBase:
        """Send the browser to the provider."""
        response = HttpResponseRedirect(openid.authorization_url(self.provider, flow))
        openid_flow.keep(self.request, response, flow)
        return response

    def check_start(self) -> None:
        """Raise Refused for what is no person following a link, and after too many failures."""
        # Browsers say what they fetch for: an image or a frame on another page begins nothing.
        if self.request.headers.get("Sec-Fetch-Dest", "document") != "document":
            raise Refused("expired", "not begun by a page")
        if openid_people.limited(client_address(self.request)):
            raise Refused("limited")


class Start(_Door):
    """Begins a sign-in."""

    def get(self, request: HttpRequest, slug: str) -> HttpResponseBase:
        """Send the browser to the provider; whoever is signed in goes on to where they wanted."""
        wanted = request.GET.get("next", "/")
        if request.user.is_authenticated:
            return HttpResponseRedirect(openid_flow.within_portal(wanted))
        try:
            self.check_start()
            if not self.provider.enabled:
                raise Refused("disabled")
            flow = openid_flow.begin(str(self.provider.uid), purpose=openid_flow.SIGN_IN, next_path=wanted)
            return self.go(flow)
        except Refused as refused:
            return self.refused(refused)


class Prove(_Door):
    """Sends a signed-in person to their provider to prove anew who they are."""

    def get(self, request: HttpRequest, slug: str) -> HttpResponseBase:
        """Send the browser to the provider, with the demand to sign in anew."""
        session: SignInSession | None = getattr(request, "sign_in_session", None)
        if not session:
            return redirect_to_sign_in(request)
        if session.provider_id != self.provider.pk:
            raise NotVisible
        flow = openid_flow.begin(
            str(self.provider.uid),
            purpose=openid_flow.PROVE,
            next_path=request.GET.get("next", "/"),
            session_uid=str(session.uid),
        )
        try:
            self.check_start()
            url = openid.authorization_url(self.provider, flow)
        except Refused as refused:
            return self.refused(refused, flow)
        # Often a form led here: what was to be sent wanted a fresh proof first.
        text = f"What you are about to do needs a fresh proof of who you are. {self.provider.name} asks you for it."
        response = _onward(request, "Prove once more who you are", text, self.provider.name, url)
        openid_flow.keep(request, response, flow)
        return response


class Try(_Door):
    """An administrator's trial: signs in at the provider and shows what it says, opening nothing."""

    def get(self, request: HttpRequest, slug: str) -> HttpResponseBase:
        """Send the browser to the provider."""
        session: SignInSession | None = getattr(request, "sign_in_session", None)
        if not session:
            return redirect_to_sign_in(request)
        if not may(request.user, MANAGE, INSTALLATION):
            raise NotAllowed(rule=MANAGE)
        flow = openid_flow.begin(
            str(self.provider.uid),
            purpose=openid_flow.TRY,
            next_path=reverse("accounts:provider-detail", kwargs={"provider_uid": self.provider.uid}),
            session_uid=str(session.uid),
        )
        try:
            self.check_start()
            return self.go(flow)
        except Refused as refused:
            return self.refused(refused, flow)


class Callback(_Door):
    """Where a provider sends people back to."""

    def get(self, request: HttpRequest, slug: str) -> HttpResponseBase:
        """Check the answer and open a session, or say why not. An answer counts once, whatever it says."""
        flow: Flow | None = None
        try:
            if openid_people.limited(client_address(request)):
                raise Refused("limited")
            given = self._given()
            flow = openid_flow.find(request, given.get("state", ""), str(self.provider.uid))
            if flow is None or not openid_flow.use_up(flow):
                raise Refused("expired", "no attempt of this browser" if flow is None else "used before")
            if flow.purpose != openid_flow.TRY and not self.provider.enabled:
                raise Refused("disabled")
            answered = openid.answer(self.provider, flow, given)
            response = self._carry_out(flow, answered)
        except Refused as refused:
            if flow is None and refused.cause == "expired" and request.user.is_authenticated:
                # The back button, or an answer fetched twice: whoever is in has nothing to read about it.
                return HttpResponseRedirect("/")
            return self.refused(refused, flow)
        openid_flow.end(response, flow)
        return response

    def _given(self) -> dict[str, str]:
        given = {}
        for name in _GIVEN:
            values = self.request.GET.getlist(name)
            if len(values) > 1 or any(len(value) > _LONGEST or not value.isprintable() for value in values):
                raise Refused("expired", f"{name} is malformed")
            if values:
                given[name] = values[0]
        return given

    def _carry_out(self, flow: Flow, answered: openid.Answered) -> HttpResponseBase:
        if flow.purpose == openid_flow.SIGN_IN:
            return self._sign_in(flow, answered)
        session: SignInSession | None = getattr(self.request, "sign_in_session", None)
        if not session or str(session.uid) != flow.session:
            raise Refused("expired", "the session it began in is over")
        if flow.purpose == openid_flow.PROVE:
            openid_sessions.proved(session, self.provider, answered.person, flow.began)
            return HttpResponseRedirect(flow.next)
        if not may(self.request.user, MANAGE, INSTALLATION):
            raise NotAllowed(rule=MANAGE)
        return self._trial(flow, answered)

    def _sign_in(self, flow: Flow, answered: openid.Answered) -> HttpResponseBase:
        request = self.request
        before: SignInSession | None = getattr(request, "sign_in_session", None)
        replaced = (before.pk, Actor.of(before.user)) if before else None
        openid_people.open_for(
            self.provider.pk,
            answered.person,
            request.session,
            id_token=answered.id_token,
            address=client_address(request),
            device=device_name(request.headers.get("User-Agent", "")),
        )
        if replaced is not None:
            # The browser knows its new session only: the old one would stay open with nobody behind it.
            actions.close_session(replaced[0], actor=replaced[1], cause="replaced")
        rotate_token(request)
        return HttpResponseRedirect(flow.next)

    def _trial(self, flow: Flow, answered: openid.Answered) -> HttpResponseBase:
        person, provider = answered.person, self.provider
        try:
            known = openid_people.known(provider, person)
        except Refused:
            known = None
        context = {
            "title": f"Trial sign-in at {provider.name}",
            "breadcrumbs": [
                Crumb("Identity providers", reverse("accounts:provider-list")),
                Crumb(provider.name, flow.next),
            ],
            "provider": provider,
            "person": person,
            "known": known,
            "accepted": openid_claims.in_domains(person.email, provider.mail_domains),
            "overage": openid_claims.overage(answered.claims, provider.groups_claim),
            "claims": sorted(name for name in answered.claims if len(name) <= 100),
            "back": flow.next,
        }
        return render(self.request, "accounts/openid_trial.html", context)


@method_decorator([csrf_exempt, sensitive_post_parameters("logout_token")], name="dispatch")
class BackChannel(_Door):
    """Takes the provider's signed notice that a session there ended (its server calls, no browser)."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, slug: str) -> HttpResponseBase:
        """End what the token names; 400 for a token that is not believed."""
        tokens = request.POST.getlist("logout_token")
        try:
            if len(tokens) != 1:
                raise Refused("token", "one logout_token is expected")
            openid_sessions.ended_there(self.provider, tokens[0])
        except Refused as refused:
            # Not in the audit trail: anybody on the network could fill it.
            _log.warning("log-out notice for provider %s refused: %s", self.provider.slug, refused)
            status = 503 if refused.cause == "unavailable" else 400
            return JsonResponse({"error": "invalid_request"}, status=status)
        return HttpResponse(status=200)


@method_decorator(xframe_options_exempt, name="dispatch")
class FrontChannel(_Door):
    """Loaded by the provider in a frame when a session there ends; the frame brings no cookies, so `sid` says which."""

    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, slug: str) -> HttpResponseBase:
        """End the sessions with that id; the answer is the same whether there were any."""
        if request.method == "GET":
            openid_sessions.ended_in_front(self.provider, request.GET.get("iss", ""), request.GET.get("sid", "")[:255])
        response = HttpResponse("", content_type="text/plain")
        parts = urlsplit(self.provider.issuer)
        # Only the provider may frame it (django-csp reads this attribute).
        response._csp_replace = {"frame-ancestors": [f"{parts.scheme}://{parts.netloc}"]}  # type: ignore[attr-defined]  # django-csp's own way
        return response


def leave_url(session: SignInSession) -> str:
    """Return where signing out goes on at the session's provider; "" where there is nothing more to do."""
    provider = session.provider
    if provider is None:
        return ""
    try:
        hint = crypto.decrypt(session.id_token)
    except crypto.CannotDecrypt:
        hint = ""
    return openid.end_session_url(provider, hint)


def left(request: HttpRequest, session: SignInSession, url: str) -> HttpResponse:
    """Say that the person is signed out here and lead on to the provider."""
    name = session.provider.name if session.provider is not None else ""
    text = f"You are signed out here. Now your session at {name} ends, too."
    return _onward(request, "Signing you out", text, name, url)


def _onward(request: HttpRequest, title: str, text: str, provider: str, url: str) -> HttpResponse:
    """Lead on to a provider by a page instead of a redirect.

    The Content-Security-Policy lets no form lead to another site, and browsers hold redirects after a form to it.
    """
    return render(
        request, "accounts/onward.html", {"title": title, "text": text, "provider": provider, "url": url}
    )  # fmt: skip
