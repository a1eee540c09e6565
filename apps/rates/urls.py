"""Addresses of the rates room."""

from django.urls import path

from apps.rates import capex_views, proposal_views, views

app_name = "rates"
_PROPOSAL = "rates/proposals/<uuid:proposal_uid>/"
urlpatterns = [
    path("rates/cards/", views.CardList.as_view(), name="card-list"),
    path("rates/cards/new/", proposal_views.ProposalCreate.as_view(), name="card-create"),
    path("rates/cards/<uuid:card_uid>/", views.CardDetail.as_view(), name="card-detail"),
    path("rates/proposals/", proposal_views.ProposalList.as_view(), name="proposal-list"),
    path(_PROPOSAL, proposal_views.ProposalDetail.as_view(), name="proposal-detail"),
    path(f"{_PROPOSAL}approve/", proposal_views.ProposalApprove.as_view(), name="proposal-approve"),
    path(f"{_PROPOSAL}reject/", proposal_views.ProposalReject.as_view(), name="proposal-reject"),
    path(f"{_PROPOSAL}withdraw/", proposal_views.ProposalWithdraw.as_view(), name="proposal-withdraw"),
    path("rates/capex/", capex_views.CapexList.as_view(), name="capex-list"),
    path("rates/capex/new/", capex_views.CapexCreate.as_view(), name="capex-create"),
    path("rates/capex/<uuid:capex_uid>/", capex_views.CapexDetail.as_view(), name="capex-detail"),
]
