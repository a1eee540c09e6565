"""The costs room through the API: closing, what follows a closed month, bills and comparisons."""

from __future__ import annotations

from tests.sweep.routes.costs_bills import ROUTES as BILLS
from tests.sweep.routes.costs_periods import ROUTES as PERIODS
from tests.sweep.routes.costs_statements import ROUTES as STATEMENTS
from tests.sweep.twins import post, twin
from tests.sweep.types import Route

PAGES = {**BILLS, **PERIODS, **STATEMENTS}
ROUTES: dict[str, Route] = {
    "api:period-checklist": twin(PAGES["costs:period-checklist"], "closing"),
    "api:period-start-closing": post(PAGES["costs:period-start"], "running"),
    "api:period-back-to-open": post(PAGES["costs:period-back"], "closing"),
    "api:period-waive": post(PAGES["costs:period-waive"], "closing"),
    "api:period-close": post(PAGES["costs:period-close"], "closing"),
    "api:correction-list": twin(PAGES["costs:correction-list"]),
    "api:correction-detail": twin(PAGES["costs:correction-detail"], "correction"),
    "api:credit-list": twin(PAGES["costs:credit-list"]),
    "api:credit-list#POST": post(PAGES["costs:credit-propose"]),
    "api:credit-detail": twin(PAGES["costs:credit-detail"], "credit"),
    "api:credit-approve": post(PAGES["costs:credit-approve"], "credit"),
    "api:credit-reject": post(PAGES["costs:credit-reject"], "credit"),
    "api:credit-withdraw": post(PAGES["costs:credit-withdraw"], "own_credit"),
    "api:dispute-list": twin(PAGES["costs:dispute-list"]),
    "api:dispute-list#POST": post(
        PAGES["costs:dispute-open"], allowed={"lead_finance", "lead_marketing", "vp", "vp_other"}
    ),
    "api:dispute-detail": twin(PAGES["costs:dispute-detail"], "dispute"),
    "api:dispute-comment": post(PAGES["costs:dispute-comment"], "dispute"),
    "api:dispute-settle": post(PAGES["costs:dispute-settle"], "dispute"),
    "api:dispute-withdraw": post(PAGES["costs:dispute-withdraw"], "dispute"),
    "api:reopening-list": twin(PAGES["costs:reopen-list"]),
    "api:reopening-list#POST": post(PAGES["costs:reopen-ask"]),
    "api:reopening-detail": twin(PAGES["costs:reopen-detail"], "reopening"),
    "api:reopening-approve": post(PAGES["costs:reopen-approve"], "reopening"),
    "api:reopening-reject": post(PAGES["costs:reopen-reject"], "reopening"),
    "api:reopening-withdraw": post(PAGES["costs:reopen-withdraw"], "own_reopening"),
    "api:distribution-policy-list": twin(PAGES["costs:distribution-list"]),
    "api:distribution-policy-list#POST": post(PAGES["costs:distribution-propose"]),
    "api:distribution-policy-detail": twin(PAGES["costs:distribution-detail"], "policy"),
    "api:distribution-policy-approve": post(PAGES["costs:distribution-approve"], "policy"),
    "api:distribution-policy-reject": post(PAGES["costs:distribution-reject"], "policy"),
    "api:distribution-policy-withdraw": post(PAGES["costs:distribution-withdraw"], "own_policy"),
    "api:billing-mode-list": twin(PAGES["costs:billing-mode-list"]),
    "api:billing-mode-list#POST": post(PAGES["costs:billing-mode-set"]),
    "api:billing-mode-detail": twin(
        PAGES["costs:billing-mode-list"], "unit_billing", allowed={"vp", "compliance", "finance", "admin", "auditor"}
    ),
    "api:statement-file-list": twin(PAGES["costs:file-list"]),
    "api:statement-file-list#POST": post(PAGES["costs:file-list"]),
    "api:statement-file-detail": twin(PAGES["costs:file-detail"], "file"),
    "api:statement-file-content": twin(PAGES["costs:file-take"], "file"),
    "api:statement-file-retry": post(PAGES["costs:file-retry"], "failed_file"),
    "api:bill-list": twin(PAGES["costs:bill-list"]),
    "api:bill-detail": twin(PAGES["costs:bill-detail"], "bill"),
    "api:bill-withdraw": post(PAGES["costs:bill-withdraw"], "bill"),
    "api:cross-check-list": twin(PAGES["costs:cross-check-list"]),
    "api:cross-check-detail": twin(PAGES["costs:cross-check-detail"], "cross_check"),
    "api:cross-check-explain": post(PAGES["costs:cross-check-explain"], "cross_check"),
}
