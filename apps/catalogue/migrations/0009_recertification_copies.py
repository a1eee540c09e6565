"""Approvals that end soon, copies of uploaded files in stores, and who confirmed which citation."""

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.db import migrations, models

from apps.core.row_security import table

#: As every other row that belongs to a version (0005).
OF_VERSION = "EXISTS (SELECT FROM public.catalogue_modelversion v WHERE v.id = model_version_id)"


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0005_second_persons'),
        ('approvals', '0011_grant_columns'),
        ('catalogue', '0008_row_security_quick'),
    ]

    operations = [
        migrations.AddField(
            model_name='control',
            name='dated_by',
            field=models.CharField(blank=True, help_text='The provision that sets from when it applies, with the official journal.', max_length=400),
        ),
        migrations.AddField(
            model_name='control',
            name='unconfirmed',
            field=models.CharField(blank=True, help_text='What exactly is not confirmed, as of which day; empty where all is.', max_length=500),
        ),
        migrations.AddField(
            model_name='modelstore',
            name='takes_copies',
            field=models.BooleanField(default=False, help_text='The portal may write approved, uploaded files there, for clusters to load.'),
        ),
        migrations.CreateModel(
            name='CitationConfirmation',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('source', models.CharField(help_text='What was read: the act, its number in the official journal.', max_length=500)),
                ('read_on', models.DateField(help_text='The day on which that text was read.')),
                ('confirmed_at', models.DateTimeField()),
                ('confirmed_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.user')),
                ('control', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='confirmation', to='catalogue.control')),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='Recertification',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('version', models.PositiveIntegerField(default=1, editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('due_at', models.DateTimeField(help_text='When the grant ends.')),
                ('status', models.CharField(choices=[('open', 'To be confirmed'), ('submitted', 'Asked for'), ('renewed', 'Renewed'), ('superseded', 'Covered by another approval'), ('declined', 'Shall end'), ('ended', 'Ended')], default='open', max_length=20)),
                ('confirmed_at', models.DateTimeField(null=True)),
                ('escalated_at', models.DateTimeField(help_text='When those above the team were told.', null=True)),
                ('closed_at', models.DateTimeField(null=True)),
                ('closed_reason', models.CharField(blank=True, max_length=500)),
                ('confirmed_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.user')),
                ('grant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='recertification', to='approvals.grant')),
                ('model_version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='recertifications', to='catalogue.modelversion')),
                ('renewal', models.OneToOneField(help_text='What it became.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='recertified', to='catalogue.modelrequest')),
                ('request', models.ForeignKey(help_text='Whose approval ends.', on_delete=django.db.models.deletion.PROTECT, related_name='recertifications', to='catalogue.modelrequest')),
            ],
            options={
                'indexes': [models.Index(fields=['status', 'due_at'], name='recertification_due')],
                'constraints': [models.CheckConstraint(condition=models.Q(models.Q(('confirmed_by__isnull', False), ('renewal__isnull', False), ('status', 'submitted')), models.Q(('closed_at__isnull', True), ('confirmed_by__isnull', True), ('renewal__isnull', True), ('status', 'open')), models.Q(('closed_at__isnull', False), ('status__in', ['renewed', 'superseded', 'declined', 'ended'])), _connector='OR'), name='recertification_whole')],
            },
        ),
        migrations.CreateModel(
            name='StoredCopy',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('version', models.PositiveIntegerField(default=1, editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('location', models.CharField(max_length=1000)),
                ('status', models.CharField(choices=[('pending', 'Waiting'), ('running', 'Running'), ('done', 'Done'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], default='pending', max_length=20)),
                ('files_total', models.PositiveIntegerField(default=0)),
                ('files_done', models.PositiveIntegerField(default=0)),
                ('bytes_total', models.BigIntegerField(default=0)),
                ('bytes_done', models.BigIntegerField(default=0)),
                ('done_through', models.CharField(blank=True, max_length=500)),
                ('started_at', models.DateTimeField(null=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('beat_at', models.DateTimeField(help_text='Last sign of life of the worker that holds it.', null=True)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('retry_at', models.DateTimeField(null=True)),
                ('last_error', models.TextField(blank=True)),
                ('model_version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='copies', to='catalogue.modelversion')),
                ('requested_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.user')),
                ('store', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='copies', to='catalogue.modelstore')),
            ],
            options={
                'constraints': [models.UniqueConstraint(condition=models.Q(('status__in', ['pending', 'running', 'done'])), fields=('model_version', 'store'), name='stored_copy_once'), models.UniqueConstraint(condition=models.Q(('status__in', ['pending', 'running'])), fields=('model_version',), name='stored_copy_one_open')],
            },
        ),
        table("catalogue_recertification", OF_VERSION),
        table("catalogue_storedcopy", OF_VERSION),
    ]
