"""Everything that people and other rooms do with models and versions, in one place to import from."""

from apps.catalogue.file_actions import add_file, append_piece, begin_upload, finish_upload, remove_file
from apps.catalogue.hash_jobs import cancel_hashing, start_hashing
from apps.catalogue.model_actions import archive_model, edit_model, register_model, restore_model
from apps.catalogue.sealing import seal
from apps.catalogue.store_actions import add_store, archive_store, edit_store, restore_store
from apps.catalogue.version_actions import (
    SourceInput,
    create_version,
    discard_version,
    edit_version,
    reinstate_version,
    retire_version,
    set_sources,
)

__all__ = [
    "SourceInput", "add_file", "add_store", "append_piece", "archive_model", "archive_store", "begin_upload",
    "cancel_hashing", "create_version", "discard_version", "edit_model", "edit_store", "edit_version", "finish_upload",
    "register_model", "reinstate_version", "remove_file", "restore_model", "restore_store", "retire_version", "seal",
    "set_sources", "start_hashing",
]  # fmt: skip
