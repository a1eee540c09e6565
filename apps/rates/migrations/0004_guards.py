"""Class prices are base × factor, and a decided proposal never changes, whoever writes; resource prices found quickly."""

from django.db import migrations, models

FORWARD = """
CREATE FUNCTION rates_guard_class_price() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE base rates_rate%ROWTYPE;
BEGIN
    IF NEW.base_id IS NULL THEN
        RETURN NEW;
    END IF;
    SELECT * INTO base FROM rates_rate WHERE id = NEW.base_id;
    IF base.service_class <> ''
       OR NEW.amount <> base.amount * NEW.factor
       OR NEW.currency <> base.currency OR NEW.cluster_id <> base.cluster_id
       OR NEW.flavour_id IS DISTINCT FROM base.flavour_id
       OR NEW.resource <> base.resource OR NEW.capacity_type <> base.capacity_type
       OR NOT base.valid @> NEW.valid THEN
        RAISE EXCEPTION 'a class price is its base price times its factor, for the same thing and time'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER rates_guard_class_price BEFORE INSERT ON rates_rate
    FOR EACH ROW EXECUTE FUNCTION rates_guard_class_price();
CREATE FUNCTION rates_guard_proposal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a proposal is never removed' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF OLD.status <> 'proposed'
       OR (NEW.name, NEW.cluster_id, NEW.currency, NEW.valid_from, NEW.note, NEW.digest, NEW.proposed_by_id, NEW.prices)
          IS DISTINCT FROM
          (OLD.name, OLD.cluster_id, OLD.currency, OLD.valid_from, OLD.note, OLD.digest, OLD.proposed_by_id, OLD.prices)
       OR NEW.valid_until IS DISTINCT FROM OLD.valid_until THEN
        RAISE EXCEPTION 'a proposal changes in nothing but its decision, once'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER rates_guard_proposal BEFORE UPDATE OR DELETE ON rates_rateproposal
    FOR EACH ROW EXECUTE FUNCTION rates_guard_proposal();
"""
BACKWARD = """
DROP TRIGGER rates_guard_proposal ON rates_rateproposal;
DROP FUNCTION rates_guard_proposal();
DROP TRIGGER rates_guard_class_price ON rates_rate;
DROP FUNCTION rates_guard_class_price();
"""


class Migration(migrations.Migration):
    dependencies = [("rates", "0003_money")]
    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.AddIndex(
            model_name="rate",
            index=models.Index(
                fields=["cluster", "resource"], name="rate_resource", condition=models.Q(flavour__isnull=True)
            ),
        ),
        migrations.AddIndex(
            model_name="rateproposal", index=models.Index(fields=["status", "-created_at"], name="rate_proposal_waiting")
        ),
    ]
