"""Addresses of the second step, of second factors, and of what is done about passwords."""

from django.urls import path

from apps.accounts import factor_reset_views, factor_views, second_step_views

urlpatterns = [
    path("sign-in/second-step/", second_step_views.SecondStep.as_view(), name="sign-in-second"),
    path("account/confirm/", second_step_views.Confirm.as_view(), name="confirm"),
    path("account/second-factors/", factor_views.FactorList.as_view(), name="factor-list"),
    path("account/second-factors/app/", factor_views.AppCreate.as_view(), name="factor-app-create"),
    path("account/second-factors/key/", factor_views.KeyCreate.as_view(), name="factor-key-create"),
    path("account/second-factors/codes/", factor_views.CodesRenew.as_view(), name="factor-codes"),
    path("account/second-factors/<uuid:factor_uid>/remove/", factor_views.FactorRemove.as_view(), name="factor-remove"),
    path(
        "people/<uuid:user_uid>/factors/reset/",
        factor_reset_views.UserFactorsReset.as_view(),
        name="user-factors-reset",
    ),
    path("people/factor-resets/", factor_reset_views.FactorResetList.as_view(), name="factor-reset-list"),
    path(
        "people/factor-resets/<uuid:reset_uid>/confirm/",
        factor_reset_views.FactorResetConfirm.as_view(),
        name="factor-reset-confirm",
    ),
    path(
        "people/factor-resets/<uuid:reset_uid>/end/",
        factor_reset_views.FactorResetEnd.as_view(),
        name="factor-reset-end",
    ),
    path("people/<uuid:user_uid>/password-use/", factor_views.UserPasswordUse.as_view(), name="user-password-use"),
]
