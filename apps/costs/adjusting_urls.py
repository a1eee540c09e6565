"""Addresses of corrections, credits, disputes, opening again, billing modes, journal and files."""

from django.urls import path, re_path

from apps.costs import billing_modes_views as modes
from apps.costs import corrections_views as corrections
from apps.costs import credits_views as credits
from apps.costs import disputes_views as disputes
from apps.costs import files_views as files
from apps.costs import reopening_views as reopening

_MONTH = r"^costs/periods/(?P<month>\d{4}-(?:0[1-9]|1[0-2]))"
_CREDIT, _DISPUTE = "costs/credits/<uuid:credit_uid>", "costs/disputes/<uuid:dispute_uid>"
_REOPEN, _STATEMENT = "costs/reopenings/<uuid:reopen_uid>", "costs/statements/<uuid:statement_uid>"
_FILE = "costs/files/<uuid:file_uid>"
urlpatterns = [
    path("costs/corrections/", corrections.CorrectionList.as_view(), name="correction-list"),
    path("costs/corrections/<uuid:correction_uid>/", corrections.CorrectionDetail.as_view(), name="correction-detail"),
    path("costs/credits/", credits.CreditList.as_view(), name="credit-list"),
    path(f"{_CREDIT}/", credits.CreditDetail.as_view(), name="credit-detail"),
    path(f"{_CREDIT}/approve/", credits.CreditApprove.as_view(), name="credit-approve"),
    path(f"{_CREDIT}/reject/", credits.CreditReject.as_view(), name="credit-reject"),
    path(f"{_CREDIT}/withdraw/", credits.CreditWithdraw.as_view(), name="credit-withdraw"),
    path(f"{_STATEMENT}/credit/", credits.CreditPropose.as_view(), name="credit-propose"),
    path("costs/disputes/", disputes.DisputeList.as_view(), name="dispute-list"),
    path(f"{_DISPUTE}/", disputes.DisputeDetail.as_view(), name="dispute-detail"),
    path(f"{_DISPUTE}/comment/", disputes.DisputeComment.as_view(), name="dispute-comment"),
    path(f"{_DISPUTE}/settle/", disputes.DisputeSettle.as_view(), name="dispute-settle"),
    path(f"{_DISPUTE}/withdraw/", disputes.DisputeWithdraw.as_view(), name="dispute-withdraw"),
    path(f"{_STATEMENT}/dispute/", disputes.DisputeOpen.as_view(), name="dispute-open"),
    path("costs/reopenings/", reopening.ReopenList.as_view(), name="reopen-list"),
    path(f"{_REOPEN}/", reopening.ReopenDetail.as_view(), name="reopen-detail"),
    path(f"{_REOPEN}/approve/", reopening.ReopenApprove.as_view(), name="reopen-approve"),
    path(f"{_REOPEN}/reject/", reopening.ReopenReject.as_view(), name="reopen-reject"),
    path(f"{_REOPEN}/withdraw/", reopening.ReopenWithdraw.as_view(), name="reopen-withdraw"),
    re_path(rf"{_MONTH}/reopen/$", reopening.ReopenAsk.as_view(), name="reopen-ask"),
    path("costs/billing/", modes.ModeList.as_view(), name="billing-mode-list"),
    path("costs/billing/units/", modes.ModeUnits.as_view(), name="billing-mode-units"),
    path("costs/billing/units/<slug:unit_slug>/", modes.ModeSet.as_view(), name="billing-mode-set"),
    path("costs/billing/accounts/", modes.AccountList.as_view(), name="journal-account-list"),
    path("costs/billing/accounts/<slug:purpose>/", modes.AccountSet.as_view(), name="journal-account-set"),
    re_path(rf"{_MONTH}/journal/$", modes.JournalPage.as_view(), name="journal"),
    re_path(rf"{_MONTH}/files/$", files.FileList.as_view(), name="file-list"),
    re_path(rf"{_MONTH}/files/new/$", files.FileAsk.as_view(), name="file-ask"),
    path(f"{_FILE}/", files.FileDetail.as_view(), name="file-detail"),
    path(f"{_FILE}/download/", files.FileTake.as_view(), name="file-take"),
    path(f"{_FILE}/retry/", files.FileRetry.as_view(), name="file-retry"),
    path(f"{_STATEMENT}/file/", files.StatementFileAsk.as_view(), name="statement-file"),
    path(f"{_STATEMENT}/print/", files.StatementPrint.as_view(), name="statement-print"),
]
