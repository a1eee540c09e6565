"""What the notifications room adds to the navigation."""

from portal.panels import nav

nav(
    "Sent mail",
    "notifications:sent-mail-list",
    icon="mail",
    order=90,
    permission="notifications.outbox.view",
    group="Platform",
)
nav(
    "Webhooks",
    "notifications:webhook-list",
    icon="send",
    order=91,
    permission="notifications.outbox.view",
    group="Platform",
)
