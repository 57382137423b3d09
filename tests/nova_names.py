"""What Nova's resize and cold migration have, by Nova's names (master of August 2026): tests/unit/test_parity_page.py
asks docs/nova-parity.md for a row of each."""

from __future__ import annotations

from collections.abc import Mapping

RULES = (*(str(number) for number in range(1, 27)), "20b")
"""The checks of nova/compute/api.py `resize`, in their order."""

LATE = (
    "root shrink",
    "ephemeral shrink",
    "LVM image backend",
    "ssh unreachable",
    "NoValidHost",
    "UnableToMigrateToSelf",
    "anti-affinity race",
    "destination disk space",
    "ComputeResourcesUnavailable",
)
"""What Nova finds only after it has answered 202."""

STATES = (
    *("ACTIVE", "STOPPED", "RESIZED", "ERROR"),
    *("resize_prep", "resize_migrating", "resize_migrated", "resize_finish", "resize_reverting", "resize_confirming"),
    *("pre-migrating", "migrating", "post-migrating", "finished", "confirming", "confirmed"),
    *("reverting", "reverted", "error", "failed"),
    *("RESIZE", "VERIFY_RESIZE", "REVERT_RESIZE"),
    *("resize", "migration"),
)
"""vm_state, task_state, migration.status, the API's status, migration_type."""

NOTIFICATIONS = (
    "instance.exists",
    *(f"instance.{phase}.{end}" for phase in ("resize_prep", "resize", "resize_finish") for end in ("start", "end")),
    *(f"instance.{phase}.{end}" for phase in ("resize_confirm", "resize_revert") for end in ("start", "end")),
    "instance.resize.error",
    "compute_task.migrate_server.error",
    "scheduler.select_destinations.start",
    "scheduler.select_destinations.end",
    "instance.update",
    "compute.exception",
)
"""The versioned event types."""

ACTIONS = (
    *("resize", "migrate", "confirmResize", "revertResize"),
    *("conductor_migrate_server", "cold_migrate", "compute_prep_resize", "compute_resize_instance"),
    *("compute_finish_resize", "compute_confirm_resize", "compute_revert_resize", "compute_finish_revert_resize"),
)
"""Instance actions and their events."""

TESTS = (
    # nova/tests/functional/test_servers.py ServerMovingTests
    *("test_resize_confirm", "test_resize_confirm_reverse", "test_resize_revert", "test_resize_revert_reverse"),
    *("test_migrate_confirm", "test_migrate_revert", "test_resize_confirm_same_host", "test_resize_revert_same_host"),
    *("test_resize_not_enough_resource", "test_resize_with_private_flavor", "test_resize_delete_while_verify"),
    *("test_migration_confirm_resize_error", "test_resize_confirm_assert_hypervisor_usage_no_periodics"),
    *("test_resize_server_conflict", "test_migrate_no_valid_host", "test_rescheduling_when_migrating_instance"),
    *("test_resize_to_same_host_prep_resize_fails", "test_resize_instance_fails_allocation_cleanup"),
    "test_finish_resize_fails_allocation_cleanup",
    *(f"test_resize_reschedule_uses_host_lists_{how}" for how in ("1_fail", "3_fails", "not_enough_alts")),
    *("test_swap_expand_0_to_0_confirm", "test_swap_expand_0_to_1024_confirm", "test_swap_expand_0_to_1024_revert"),
    *("test_swap_expand_1024_to_2048_confirm", "test_swap_expand_1024_to_2048_revert"),
    *("test_swap_expand_2048_to_2048_confirm", "test_swap_shrink_1024_to_0_confirm"),
    *("test_swap_shrink_1024_to_0_revert", "test_swap_shrink_2048_to_1024_confirm"),
    *("test_swap_shrink_2048_to_1024_revert", "test_resize_and_confirm_after_server_created_with_host"),
    # the other functional classes
    *("test_resize_server_overquota", "test_resize_server_overquota_multiple_users"),
    "test_resize_server_overquota_user_quota",
    *(f"test_{what}_server_negative_invalid_state" for what in ("resize", "revert_resized", "confirm_resized")),
    "test_source_host_down_during_confirm",
    *("test_migrate_claim_on_dest_fails", "test_migrate_move_allocation_fails_due_to_conflict"),
    "test_confirm_migrate_delete_alloc_on_source_fails",
    "test_revert_migrate_delete_dest_allocation_fails_due_to_conflict",
    "test_revert_resize_same_host_delete_dest_fails_due_to_conflict",
    *("ServerTestV256", "ResizeCheckInstanceHostTestCase"),
    *("test_migrate_confirm_after_deleted_source_compute", "test_resize_revert_after_deleted_source_compute"),
    *("ColdMigrationDisallowSameHost", "ColdMigrationAllowSameHost"),
    *("test_resize_revert_across_azs", "test_cold_migrate_cross_az"),
    *("test_migrate_with_anti_affinity", "test_migrate_with_anti_affinity_confirm_updates_scheduler"),
    *("test_resize_to_same_host_with_anti_affinity", "test_boot_from_volume_larger_than_local_gb"),
    "test_audit_orphaned_allocations_from_confirmed_resize",
    *("test_cold_migration_source_compute_graceful_shutdown", "test_cold_migration_dest_compute_graceful_shutdown"),
    "test_cold_migration_dest_shutdown_before_resize_instance_completes",
    "test_revert_resize_dest_compute_graceful_shutdown",
    "notification_sample_tests/test_instance",
    *("test_resize_confirm_from_stopped", "test_resize_revert_from_stopped"),
    "test_resize_revert_detach_volume_while_resized",
    # regressions/test_bug_*
    *("1669054", "1718512", "1741125", "1790204", "1797580", "1825020", "1825537", "1845291", "1848343", "1879878"),
    *("1938326", "2007968"),
)
"""Functional tests whose behaviour is worth having."""

BROKEN_IN_NOVA = (
    "test_finish_resize_fails_allocation_cleanup",
    "test_migrate_claim_on_dest_fails",
    "test_migrate_move_allocation_fails_due_to_conflict",
    "test_confirm_migrate_delete_alloc_on_source_fails",
    "test_revert_migrate_delete_dest_allocation_fails_due_to_conflict",
    "test_revert_resize_same_host_delete_dest_fails_due_to_conflict",
    *("1790204", "1825537", "1848343"),
)
"""Those of them that assert a defect; their rows are marked P* and say that it is absent."""

BUGS = tuple(str(number) for number in range(1, 46))
"""Failures that operators met, numbered on the page."""

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Rules": RULES,
    "What Nova finds late": LATE,
    "States": STATES,
    "Notifications": NOTIFICATIONS,
    "Actions": ACTIONS,
    "Nova's tests": TESTS,
    "Known Nova bugs": BUGS,
}
"""Per section of the page what must be in it."""
