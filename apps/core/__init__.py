"""What every room stands on: errors, actors, money, time, scope gate, outbox, leases, generic pages."""
