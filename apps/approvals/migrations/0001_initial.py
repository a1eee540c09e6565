import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ('accounts', '0001_initial'),
        ('teams', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Policy',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('version', models.PositiveIntegerField(default=1, editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('slug', models.SlugField(max_length=60, unique=True)),
                ('name', models.CharField(max_length=200)),
                ('subject_type', models.CharField(help_text='E.g. "quotas.request".', max_length=60)),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='ApprovalRequest',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('version', models.PositiveIntegerField(default=1, editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('subject_type', models.CharField(max_length=60)),
                ('subject_uid', models.UUIDField()),
                ('subject_digest', models.CharField(max_length=64)),
                ('leaves', models.JSONField(default=list, help_text='One digest leaf per cluster and field path.')),
                ('title', models.CharField(max_length=300)),
                ('status', models.CharField(choices=[('in_review', 'In review'), ('waiting_for_capacity', 'Waiting for capacity'), ('approved', 'Approved'), ('rejected', 'Rejected'), ('withdrawn', 'Withdrawn'), ('lapsed', 'Lapsed'), ('superseded', 'Superseded')], default='in_review', max_length=30)),
                ('facts', models.JSONField(default=dict, help_text='Named facts read at submission (`engine.load_facts`).')),
                ('requester_side', models.JSONField(default=list, help_text="User ids on the requester's side at submission; those of now count as well.")),
                ('queue', models.CharField(blank=True, help_text='The line it stands in where capacity is short.', max_length=100)),
                ('current_stage', models.PositiveSmallIntegerField(default=0)),
                ('automatic', models.BooleanField(default=False, help_text='Approved by policy, without a person.')),
                ('automatic_rule', models.CharField(blank=True, help_text="The policy's rule that approved it.", max_length=120)),
                ('submitted_at', models.DateTimeField()),
                ('due_at', models.DateTimeField(null=True)),
                ('concluded_at', models.DateTimeField(null=True)),
                ('conclusion', models.CharField(blank=True, max_length=500)),
                ('requester', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='approval_requests', to='accounts.user')),
                ('supersedes', models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='superseded_by', to='approvals.approvalrequest')),
                ('team', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='approval_requests', to='teams.team')),
                ('unit', models.ForeignKey(help_text='The paying unit.', on_delete=django.db.models.deletion.PROTECT, related_name='approval_requests', to='teams.unit')),
            ],
        ),
        migrations.CreateModel(
            name='Grant',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('subject_digest', models.CharField(max_length=64)),
                ('scope', models.JSONField(default=dict)),
                ('not_before', models.DateTimeField()),
                ('expires_at', models.DateTimeField(null=True)),
                ('revoked_at', models.DateTimeField(null=True)),
                ('revoked_reason', models.CharField(blank=True, max_length=500)),
                ('request', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='grant', to='approvals.approvalrequest')),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='PolicyVersion',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('number', models.PositiveIntegerField()),
                ('body', models.JSONField()),
                ('digest', models.CharField(max_length=64)),
                ('published_at', models.DateTimeField()),
                ('policy', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='versions', to='approvals.policy')),
                ('published_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.user')),
            ],
        ),
        migrations.AddField(
            model_name='approvalrequest',
            name='policy_version',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='requests', to='approvals.policyversion'),
        ),
        migrations.CreateModel(
            name='Stage',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('ordinal', models.PositiveSmallIntegerField()),
                ('name', models.CharField(max_length=120)),
                ('role', models.CharField(max_length=30)),
                ('rule', models.CharField(help_text='Which rule of the policy asks for it, in words.', max_length=1000)),
                ('quorum', models.PositiveSmallIntegerField(default=1)),
                ('due_hours', models.PositiveIntegerField(help_text='Time to decide, from the opening of the stage.', null=True)),
                ('due_at', models.DateTimeField(null=True)),
                ('opened_at', models.DateTimeField(null=True)),
                ('completed_at', models.DateTimeField(null=True)),
                ('request', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='stages', to='approvals.approvalrequest')),
                ('unit', models.ForeignKey(help_text='Where the role must be held.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='teams.unit')),
            ],
            options={
                'ordering': ['ordinal'],
            },
        ),
        migrations.CreateModel(
            name='Decision',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('verdict', models.CharField(choices=[('approve', 'Approve'), ('reject', 'Reject')], max_length=20)),
                ('reason', models.TextField()),
                ('subject_digest', models.CharField(max_length=64)),
                ('policy_digest', models.CharField(max_length=64)),
                ('facts', models.JSONField(default=dict, help_text='The facts as they stood at the decision.')),
                ('held', models.CharField(help_text='The role and where it was held when deciding.', max_length=300)),
                ('decided_at', models.DateTimeField()),
                ('actor', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='decisions', to='accounts.user')),
                ('on_behalf_of', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.user')),
                ('request', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='decisions', to='approvals.approvalrequest')),
                ('stage', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='decisions', to='approvals.stage')),
            ],
            options={
                'ordering': ['decided_at', 'id'],
            },
        ),
        migrations.AddConstraint(
            model_name='policyversion',
            constraint=models.UniqueConstraint(fields=('policy', 'number'), name='policy_version_once'),
        ),
        migrations.AddIndex(
            model_name='approvalrequest',
            index=models.Index(fields=['status', 'submitted_at'], name='approval_status'),
        ),
        migrations.AddIndex(
            model_name='approvalrequest',
            index=models.Index(fields=['subject_type', 'subject_uid'], name='approval_subject'),
        ),
        migrations.AddIndex(
            model_name='approvalrequest',
            index=models.Index(condition=models.Q(('status', 'waiting_for_capacity')), fields=['queue', 'submitted_at'], name='approval_line'),
        ),
        migrations.AddIndex(
            model_name='approvalrequest',
            index=models.Index(condition=models.Q(('status', 'in_review')), fields=['due_at'], name='approval_due'),
        ),
        migrations.AddConstraint(
            model_name='approvalrequest',
            constraint=models.UniqueConstraint(condition=models.Q(('status__in', ['in_review', 'waiting_for_capacity'])), fields=('subject_type', 'subject_uid'), name='approval_one_open'),
        ),
        migrations.AddConstraint(
            model_name='stage',
            constraint=models.UniqueConstraint(fields=('request', 'ordinal'), name='stage_once'),
        ),
    ]
