"""Results shared through an object store that speaks S3: a bucket, this machine's copy of it, and leases on pieces of work.

ESR_STORE=s3://bucket/prefix python -m flows exp01 tiny
"""
