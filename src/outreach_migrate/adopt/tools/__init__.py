"""The folders of other tools: how each finds, orders and cuts its migrations."""
