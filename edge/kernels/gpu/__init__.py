"""Schedules for GPUs: how the operators' loops become work-groups, and what each work-item keeps in its registers."""
