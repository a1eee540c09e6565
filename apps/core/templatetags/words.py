"""The portal's words (design §3), each explained in one sentence where a newcomer meets it."""

from __future__ import annotations

WORDS: dict[str, str] = {
    "workspace": "A team's place on one cluster for one environment, with the kinds of data allowed there.",
    "flavour": "A GPU or CPU class that a team can ask for, such as a whole A100 or a slice of one.",
    "pool": "All GPUs of one model on one cluster, shared by the teams.",
    "committable": "How many GPUs of a pool may be promised to teams; a platform admin sets it, with a date.",
    "quota": "What a workspace holds of a flavour: a guaranteed number, and how far it may borrow beyond it.",
    "guaranteed": "GPUs that are always this workspace's to use; nobody else can hold on to them.",
    "borrow": "GPUs beyond the guaranteed ones, lent while their owner leaves them idle and taken back on demand.",
    "borrowed": "GPUs in use beyond the guaranteed ones, lent while their owner leaves them idle.",
    "maximum": "Guaranteed plus borrow: the most that can run at one time.",
    "quota request": "Asks for a change of a workspace's quotas; nothing changes before it is approved.",
    "approval request": "One pass through the rules in force, for exactly this change and no other.",
    "decision": "One person's verdict, with the reason, kept for good.",
    "grant": "The result of an approval: what may be applied, from when, until when.",
    "declaration": "The objects that a cluster shall hold, as approved, byte for byte.",
    "plan": "What a cluster says would change, asked before anybody decides.",
    "apply run": "One attempt to bring a cluster to what was approved.",
    "drift": "Something on the cluster differs from what was approved.",
    "fact": "What one workload was metered to hold and use within one hour.",
    "rate card": "The prices per GPU-hour, each with the dates it is in force.",
    "charge": "A metered hour with its price.",
    "period": "A calendar month of the books: open, closing, closed.",
    "statement": "The frozen lines of a team or unit for a closed month.",
    "correction": "A signed line in an open month that puts a closed one right.",
    "finding": "Something worth acting on, with its amount of money.",
    "GPU-hour": "One GPU held for one hour, busy or not.",
    "allocated": "GPU time that was held for a workload, whether it computed or not.",
    "used": "The part of the held GPU time in which the GPU computed.",
    "idle": "GPU time that was held and paid for while the GPU did nothing.",
    "reserved-unused": "GPU time that was guaranteed to a team and that nobody used.",
    "unsold": "GPU time that was promised to nobody and that nobody used.",
    "stranded": "GPU time that could not be given to anybody, as its node lacked memory or CPU.",
    "showback": "Showing each team what it cost, without booking it.",
    "quorum": "How many people of a role must approve.",
    "digest": "A fingerprint of the exact bytes: change one, and it is another.",
    "completeness": "How many of the hours are metered in full; a missing hour is unknown, never zero.",
    "time zone": "The zone in which months of the books begin and end.",
}


_BY_LOWER_CASE = {word.lower(): meaning for word, meaning in WORDS.items()}


def explain(word: str) -> str:
    """Return the sentence for a word. Raises KeyError for a word that design §3 does not have (a spelling mistake)."""
    return _BY_LOWER_CASE[word.lower()]
