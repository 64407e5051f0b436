"""Make the bucket that MLflow keeps artifacts in, unless it is there: ``python deployment/make_bucket.py NAME``.

Where the object storage is and who opens it, the environment says (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...).
"""

from __future__ import annotations

import sys

import boto3

name = sys.argv[1]
client = boto3.client("s3")
if name not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
    client.create_bucket(Bucket=name)
print(f"bucket {name}")
